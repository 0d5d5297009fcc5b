"""What `sterna doctor` judges: looks at hosts as values, and what each of them means. Pure."""
