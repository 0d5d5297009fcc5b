"""Only `make test-openstack` collects these tests: the servers are large, and `make test` shall not need them."""

import os

# Taken out: an agent that a test starts would read it as its own settings (`STERNA_*`, section `openstack`).
collect_ignore_glob = [] if os.environ.pop("STERNA_OPENSTACK", "") else ["test_*.py"]
