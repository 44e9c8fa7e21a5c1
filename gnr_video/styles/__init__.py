"""Styles: the language that names them, the codes it stands for, and how they change with time."""
