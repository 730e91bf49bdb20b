"""DECIDES which experts see a token, and with which weight."""
