"""What training, grading, packing and uploading share. Imports neither TensorFlow nor scikit-learn."""
