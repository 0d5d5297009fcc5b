"""What the `neutron` and `cinder` providers share: the way to an OpenStack cloud. Needs the extra `openstack`."""
