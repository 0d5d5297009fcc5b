"""Keys, certificates and the CA, in files, with `cryptography`."""
