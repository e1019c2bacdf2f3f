"""What REST and the platform are shown, made from what services hold."""
