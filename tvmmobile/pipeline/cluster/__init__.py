"""Work on other machines, through Dask: what is sent (`parcel`), what runs there (`worker`), and who hands it out (`pool`)."""
