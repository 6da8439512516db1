"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): ten kinds of clothes, in MNIST's format. MNIST's page reads it."""
from .mnist import Idx, four_files, load_idx, unpacked
from .sources import Source

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
REMOTES = four_files(
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
     "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"),
    (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"))
FASHION = Idx(Source("fashion-mnist", "Fashion-MNIST", REMOTES, unpacked(REMOTES), folders=("FashionMNIST/raw",)),
              CLASSES)


def load(data_dir=None, img_size=None, download=True, progress=None, idx=None):
    """Fashion-MNIST from the first place that has it, else by download. Returns and raises as mnist.load."""
    return load_idx(idx or FASHION, data_dir, img_size, download, progress)
