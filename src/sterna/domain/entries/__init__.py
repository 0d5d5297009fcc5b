"""What the entries of a journal carry, one frozen type for each name (ADR 17).

    base.py          what they have in common, and the only place where they become JSON and come back
    source.py        intents and outcomes of the source's steps
    destination.py   intents and outcomes of the destination's steps
    notes.py, destination_notes.py
                     what is seen or sent between steps

Here because hosts write them, and hosts, the controller and the reports read them. A reader names the type:
`ctx.history.get(Snapshot).vm`.
"""
