"""The competition's side: what a server does with a zip, here, before the zip is handed in."""
