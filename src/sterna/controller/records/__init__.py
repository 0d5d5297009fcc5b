"""What the controller knows: hosts, VMs, migrations, and how good its forecasts were."""
