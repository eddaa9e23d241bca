"""What the verbs of the command line do; this folder and `generator/cli.py` alone print."""
