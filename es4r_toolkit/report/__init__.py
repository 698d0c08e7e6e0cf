"""The demonstration's report: results, training and answered dialogues on one page that needs nothing beside it."""

from es4r_toolkit.report.content import AnsweredDialogue, AnsweredTurn, DemoReport, EnergyPath
from es4r_toolkit.report.page import write_report

__all__ = ["AnsweredDialogue", "AnsweredTurn", "DemoReport", "EnergyPath", "write_report"]
