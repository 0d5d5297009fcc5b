"""`sterna setup`: writes the settings of a process, enrols it, checks the result and starts its systemd unit.

What it will change is shown before. It may be run again: what is as it should be is left alone.
"""
