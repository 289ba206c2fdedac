"""Tests of backup verification: real servers, real dumps, real damage."""
