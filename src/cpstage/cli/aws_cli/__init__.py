"""How the AWS CLI reads its parameters and prints its answers, for our drop-in of one command."""
