"""Writes what is made."""

from deploy.chart.documents import made

for path, text in made().items():
    path.write_text(text)
