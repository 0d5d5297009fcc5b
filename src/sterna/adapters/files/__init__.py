"""Files of one host: disks to make and remove, media to carry, and proof of what two hosts share."""
