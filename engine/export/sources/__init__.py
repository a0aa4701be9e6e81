"""What each framework's models are: how they are loaded, and what they predict."""
