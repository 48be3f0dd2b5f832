"""What is done to a caption: cleaned, searched for boilerplate, judged to be English or not."""
