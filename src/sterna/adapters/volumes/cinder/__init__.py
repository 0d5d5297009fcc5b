"""The `cinder` volume provider: real Cinder's attachments decide which host storage admits."""
