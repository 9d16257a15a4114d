"""What the tests share: PM2 daemons of their own, module calls, small applications, load."""
