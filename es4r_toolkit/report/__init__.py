"""Pages that need nothing beside them: the demonstration, a corpus, an evaluation, a listening test and its results."""

from es4r_toolkit.report.content import AnsweredDialogue, AnsweredTurn, DemoReport, EnergyPath
from es4r_toolkit.report.page import write_report

__all__ = ["AnsweredDialogue", "AnsweredTurn", "DemoReport", "EnergyPath", "write_report"]
