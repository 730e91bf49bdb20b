"""What is asked of ONE trained model after its training; answers lie in the folder of the run."""
