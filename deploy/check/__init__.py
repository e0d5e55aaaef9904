"""What is checked of everything in deploy/ before it runs: see __main__.py."""
