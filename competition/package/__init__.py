"""Builds submissions: the zip and its rules, and the CSV file for Kaggle."""
