"""The Compute API of OpenStack, as far as live migration needs it: `/compute` (docs/how-to/openstack.md).

Translates to the controller's intents and reads, and keeps nothing itself.
"""
