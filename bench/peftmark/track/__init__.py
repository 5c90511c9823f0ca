"""Stored rows sent to experiment trackers: MLflow, Weights & Biases, TensorBoard, Trackio."""
