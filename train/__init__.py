"""The trainer: real Kinect data in, a bundle for the runtime out."""
