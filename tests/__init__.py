"""Tests, by area; builders that several files share are modules beside them."""
