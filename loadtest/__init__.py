"""Load tests that see a service from outside: requests leave at times drawn before, whether or not it keeps up."""
