"""What goes over trained weights afterwards, without training what draws: colours of styles, seeds."""
