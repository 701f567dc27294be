"""The parts of the command line (`__main__`): what it writes, and what its commands show."""
