"""`sterna support-bundle`: one file with what somebody needs who helps from elsewhere, and without secrets."""
