"""Where users of the API are known besides its own tokens."""
