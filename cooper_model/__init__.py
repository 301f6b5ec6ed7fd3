"""COOPER as a library: perceives and reasons about one image. Knows neither ROS nor training, and imports no torch."""
