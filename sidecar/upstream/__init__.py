"""The app's side: servers, their pools of connections, the choice among them, the exchange with one."""
