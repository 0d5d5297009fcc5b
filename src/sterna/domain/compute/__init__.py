"""What the Compute API of OpenStack means in Sterna's words (docs/how-to/openstack.md). Pure."""
