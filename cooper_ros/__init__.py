"""The ROS 2 side of COOPER; the only package here that imports ``rclpy`` and ``cooper_msgs``."""
