"""Requests to routes: conditions, order, templates, and why a route was chosen."""
