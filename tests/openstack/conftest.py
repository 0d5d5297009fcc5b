"""Only `make test-openstack` collects these tests: the servers are large, and `make test` shall not need them."""

import os

collect_ignore_glob = [] if os.environ.get("STERNA_WITH_OPENSTACK") else ["test_*.py"]
