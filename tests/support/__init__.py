"""What the tests share: PM2 daemons, module calls, small applications, load."""
