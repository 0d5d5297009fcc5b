"""Real Keystone, Neutron and Cinder on this machine, for the tests of the `neutron` and `cinder` providers.

`make test-openstack` installs them below `.cache/openstack` and starts them inside the lab's own namespaces (or in
namespaces of their own where no lab is needed): they listen on the lab's address alone, and whatever ends the
namespaces ends them.
"""
