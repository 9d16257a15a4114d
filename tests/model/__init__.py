"""What the tests of the model of an app share: a context for a PM2_HOME, and definitions of every kind."""
