"""The only place with sockets: channels, listeners, dialing."""
