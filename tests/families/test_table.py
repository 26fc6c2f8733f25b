"""The page of families and forms in the documentation has the outcomes of the catalogues."""

import models_table
from against_autograd import Refused
from families import FAMILIES
from storage_forms import FORMS


def test_the_table_has_the_outcomes_of_the_catalogues(page):
    expected = {of.name: "right" if of.refused is None else "refused" for of in (*FAMILIES, *FORMS)}
    assert models_table.read(page) == expected, "write it anew: python -m pytest tests/families --write-table"


def test_what_is_written_is_read_again():
    found = {of.name: Refused(message=f"model: expected {of.name}, found | none") for of in (*FAMILIES, *FORMS)}
    assert models_table.read(models_table.render(found)) == dict.fromkeys(found, "refused")
