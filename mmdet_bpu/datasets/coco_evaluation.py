"""What pycocotools treats apart in an annotation file that a data set reads without a word."""
from typing import Iterator, Sequence

from mmdet_bpu.errors import BpuError

# COCOeval's area range 'all', in square px: what is outside is not evaluated.
EVALUATED_AREA = (0, 1e5**2)

COUNTED_ONLY = 'annotation is dropped in training, but counts in evaluation'
NOT_COUNTED = f'area is above {EVALUATED_AREA[1]:.0e}, which evaluation leaves out'
ID_ZERO = 'annotation has the id 0: pycocotools counts its detection as a false one'
ID_NAME = 'annotation has a name for an id, which stock CocoMetric cannot evaluate'
CATEGORY_ID = 'id of a category is no integer, which stock CocoMetric cannot evaluate'
CATEGORY_ORDER = ('categories are not in the order of their ids: CocoMetric(classwise=True) shows '
                  'the numbers of one under the name of another')


def crowd_flag(annotation: dict) -> int:
    """``iscrowd`` as 0 or 1; absent and null are 0, which is how ``CocoDataset`` reads them.

    Raises:
        BpuError: If it is anything but 0, 1, true or false; readers disagree on such values.
            The message names the annotation, not the file.
    """
    value = annotation.get('iscrowd')
    if value is None:
        return 0
    if not isinstance(value, (int, float)) or value not in (0, 1):
        raise BpuError(f"annotation {annotation['id']}: expected iscrowd to be 0 or 1, found "
                       f'{value!r}; correct it')
    return int(value)


def evaluated_apart(annotation: dict, dropped: bool) -> Iterator[str]:
    """What pycocotools makes of an annotation that is not what training makes of it.

    Args:
        annotation (dict): A checked entry, of a category that the data set has.
        dropped (bool): Whether training drops it.

    Yields:
        str: In the words of the packing report.
    """
    smallest, largest = EVALUATED_AREA
    if dropped and not crowd_flag(annotation) and smallest <= annotation['area'] <= largest:
        yield COUNTED_ONLY
    if annotation['area'] > largest:
        yield NOT_COUNTED
    if isinstance(annotation['id'], str):
        yield ID_NAME
    elif annotation['id'] == 0:
        yield ID_ZERO


def categories_apart(categories: list[dict]) -> Iterator[tuple[str, str]]:
    """What pycocotools does not take of the categories as a data set does, and whose it is."""
    odd = [category for category in categories if type(category['id']) is not int]
    for category in odd:
        yield CATEGORY_ID, f"'{category['name']}' ({category['id']!r})"
    ids = [category['id'] for category in categories]
    if not odd and ids != sorted(ids):
        yield CATEGORY_ORDER, ', '.join(map(str, ids))


def repeated_names(categories: Sequence[dict]) -> dict[str, list]:
    """Ids by name of the categories that share theirs.

    ``CocoDataset`` gives each of them a label, while ``classes`` has their name once or has to
    have it twice: the labels of all classes behind are shifted.
    """
    ids: dict[str, list] = {}
    for category in categories:
        ids.setdefault(category['name'], []).append(category['id'])
    return {name: of_name for name, of_name in ids.items() if len(of_name) > 1}


def describe_repeated_names(repeated: dict[str, list]) -> str:
    """Names and ids in words."""
    return '; '.join(f"'{name}' is the name of the categories {', '.join(map(str, ids))}"
                     for name, ids in repeated.items())


def make_evaluable(content: dict) -> None:
    """Change COCO content in place so that pycocotools evaluates what a data set reads.

    ``iscrowd`` becomes 0 or 1. If an annotation has a name for an id, all of them are numbered from
    1; if a category has an id that is no integer, all are, in their order. What pycocotools can
    evaluate stays as it is, so that the numbers are those of the file.

    Args:
        content (dict): ``images``, ``annotations`` and ``categories``.

    Raises:
        BpuError: If an ``iscrowd`` is neither 0 nor 1.
    """
    annotations, categories = content['annotations'], content['categories']
    for annotation in annotations:
        annotation['iscrowd'] = crowd_flag(annotation)
    if any(isinstance(annotation['id'], str) for annotation in annotations):
        for number, annotation in enumerate(annotations, 1):
            annotation['id'] = number
    if any(type(category['id']) is not int for category in categories):
        numbers = {category['id']: number for number, category in enumerate(categories, 1)}
        for category in categories:
            category['id'] = numbers[category['id']]
        for annotation in annotations:  # 0 is no category: as before, it is not evaluated
            annotation['category_id'] = numbers.get(annotation['category_id'], 0)
