"""One page: how many orders there are in each state."""

from django.db.models import Count
from django.http import HttpRequest, JsonResponse
from django.urls import path

from .models import Order


def show_orders(request: HttpRequest) -> JsonResponse:
    """The number of orders in each state."""
    counted = Order.objects.values_list("state").annotate(Count("id"))
    return JsonResponse(dict(counted))


urlpatterns = [path("", show_orders)]
