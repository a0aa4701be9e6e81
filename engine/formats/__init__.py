"""Small formats shared by the offline engine, the server and the control plane."""
