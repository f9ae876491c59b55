"""The routes, one file a resource; a new one is one new file and one line here."""

from fastapi import APIRouter

from processors.api.routes.health import router as health
from processors.api.routes.workflows import router as workflows

ROUTERS: tuple[APIRouter, ...] = (workflows, health)
