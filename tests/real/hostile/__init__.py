"""The other end of a tunnel as a test plays it: message by message, well or badly."""
